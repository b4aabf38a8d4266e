with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

items as (

    select * from {{ ref('dim_items') }}
    where cardinality(categories) > 0

),

-- An event of an item of several categories counts in equal parts in each.
categories_of_items as (

    select
        items.item_id,
        category,
        1.0 / cardinality(items.categories) as part

    from items
    cross join unnest(items.categories) as category

),

user_categories as (

    select
        interactions.domain,
        interactions.user_id,
        categories_of_items.category,
        sum(categories_of_items.part)::double precision as events

    from interactions
    inner join categories_of_items using (item_id)
    group by interactions.domain, interactions.user_id, categories_of_items.category

)

select * from user_categories
