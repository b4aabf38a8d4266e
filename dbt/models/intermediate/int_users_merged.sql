with

users as (

    select * from {{ ref('stg_raw__users') }}
    where domain in {{ domains() }}

),

user_attributes as (

    select
        users.user_id,
        users.source,
        users.landed_partition,
        attribute.key as attribute_name,
        attribute.value as attribute_value

    from users
    cross join lateral jsonb_each(users.attributes) as attribute

),

-- jsonb keeps the last of equal names, so the latest partition wins.
attributes_per_user as (

    select
        user_id,
        jsonb_object_agg(attribute_name, attribute_value order by landed_partition, source) as attributes

    from user_attributes
    group by user_id

),

domains_per_user as (

    select
        user_id,
        array_agg(distinct domain) as domains

    from users
    group by user_id

)

select
    domains_per_user.user_id,
    domains_per_user.domains,
    coalesce(attributes_per_user.attributes, '{}'::jsonb) as attributes

from domains_per_user
left join attributes_per_user using (user_id)
