with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

users as (

    select * from {{ ref('dim_users') }}

),

activity_per_user as (

    select
        occurred_date as activity_date,
        domain,
        user_id,
        count(*) as interactions,
        sum(rating) as rating_sum,
        count(rating) as rating_count

    from interactions
    group by occurred_date, domain, user_id

),

engagement as (

    select
        activity_per_user.activity_date,
        activity_per_user.domain,
        sum(activity_per_user.interactions)::bigint as interactions,
        count(*) as active_users,
        count(*) filter (
            where {{ utc_date('users.first_interaction_at') }} = activity_per_user.activity_date
        ) as new_users,
        sum(activity_per_user.rating_sum) / nullif(sum(activity_per_user.rating_count), 0) as mean_rating

    from activity_per_user
    inner join users using (user_id)
    group by activity_per_user.activity_date, activity_per_user.domain

)

select * from engagement
