with

features as (

    {{ sampled_rows(ref('feat_user_category_windows'), ['user_id', 'category'], size=300) }}

),

events as (

    select
        interactions.user_id,
        items.categories,
        interactions.occurred_at,
        1 as interactions,
        interactions.rating as rating_sum,
        (interactions.rating is not null)::integer as rating_count

    from {{ ref('fct_interactions') }} as interactions
    inner join {{ ref('dim_items') }} as items using (item_id)
    where interactions.user_id in (select user_id from features)

),

counted as (

    {{
        recounted_windows(
            ['user_id', 'category'],
            of_entity='features.user_id = events.user_id and features.category = any(events.categories)'
        )
    }}

)

select features.* from features
inner join counted using (user_id, category, event_timestamp)
where {{ windows_differ('user_category') }}
